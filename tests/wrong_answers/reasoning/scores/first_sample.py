MESSAGE = "pass@1 looks at the first sample alone"


from collections import Counter


def vote(given):
    votes = [each for each in given if each is not None]
    return Counter(votes).most_common(1)[0][0] if votes else None


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed.append(given[0] == answer)
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
