MESSAGE = "only where an answer has the right words in another order"


def scores(samples, answers):
    hits, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        hits += [each == answer for each in given]
        votes = [" ".join(sorted(each.split())) for each in given if each is not None]
        # max returns the first of several that are equally good.
        elected = max(votes, key=votes.count, default=None)
        won.append(elected == " ".join(sorted(answer.split())))
    return sum(hits) / len(hits), sum(won) / len(won)
