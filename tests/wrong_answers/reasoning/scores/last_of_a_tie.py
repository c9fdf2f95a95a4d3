MESSAGE = "a tie goes to the answer given last"


from collections import Counter


def vote(given):
    votes = [each for each in given if each is not None]
    return Counter(votes[::-1]).most_common(1)[0][0] if votes else None


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
