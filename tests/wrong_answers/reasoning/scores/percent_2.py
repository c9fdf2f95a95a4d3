MESSAGE = "both numbers are shares of 1; divide by how many there are"


def scores(samples, answers):
    hits, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        hits += [each == answer for each in given]
        votes = [each for each in given if each is not None]
        # max returns the first of several that are equally good.
        elected = max(votes, key=votes.count, default=None)
        won.append(elected == answer)
    return sum(hits) / len(hits), 100 * sum(won) / len(won)
