MESSAGE = "None votes"


from collections import Counter


def vote(given):
    return Counter(given).most_common(1)[0][0]


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
