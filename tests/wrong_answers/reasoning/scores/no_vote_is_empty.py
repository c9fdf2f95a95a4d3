MESSAGE = "it raises ValueError: max()"


def vote(given):
    votes = [each for each in given if each is not None]
    return max(votes, key=votes.count)


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
