MESSAGE = "pass@1 is right, and the vote is not"


def vote(given):
    votes = [each for each in given if each is not None]
    return min(votes, key=votes.count) if votes else None


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
