MESSAGE = "the result is wrong"


def scores(samples, answers):
    hits, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        hits += [
            each is not None and int(each.split()[0]) == int(answer.split()[0]) for each in given
        ]
        votes = [each for each in given if each is not None]
        # max returns the first of several that are equally good.
        elected = max(votes, key=votes.count, default=None)
        won.append(elected == answer)
    return sum(hits) / len(hits), sum(won) / len(won)
