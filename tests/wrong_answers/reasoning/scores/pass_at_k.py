MESSAGE = "cons@k counts a problem as solved when any sample is right"


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(answer in given)
    return sum(passed) / len(passed), sum(won) / len(won)
