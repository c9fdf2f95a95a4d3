MESSAGE = "the vote asks for more than half"


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(given.count(answer) > len(given) / 2)
    return sum(passed) / len(passed), sum(won) / len(won)
