MESSAGE = "pass@1 leaves out samples without an answer"


from collections import Counter


def vote(given):
    votes = [each for each in given if each is not None]
    return Counter(votes).most_common(1)[0][0] if votes else None


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        kept = [each for each in given if each is not None]
        passed.append(kept.count(answer) / max(1, len(kept)))
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
