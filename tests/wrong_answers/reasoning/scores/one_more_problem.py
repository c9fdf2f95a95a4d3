MESSAGE = "pass@1 is right, and the vote is not: most votes win, None has none"


def scores(samples, answers):
    hits, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        hits += [each == answer for each in given]
        votes = [each for each in given if each is not None]
        # max returns the first of several that are equally good.
        elected = max(votes, key=votes.count, default=None)
        won.append(elected == answer)
    return sum(hits) / len(hits), sum(won) / (len(won) + 1)
