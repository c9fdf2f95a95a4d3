MESSAGE = "a tie is right when the right answer is among the best"


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        votes = [each for each in given if each is not None]
        most = max((votes.count(each) for each in votes), default=0)
        won.append(most > 0 and votes.count(answer) == most)
    return sum(passed) / len(passed), sum(won) / len(won)
