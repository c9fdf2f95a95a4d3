MESSAGE = "a tie goes to the first in the alphabet"


def vote(given):
    votes = [each for each in given if each is not None]
    return max(sorted(set(votes)), key=votes.count) if votes else None


def scores(samples, answers):
    passed, won = [], []
    for given, answer in zip(samples, answers, strict=True):
        passed += [each == answer for each in given]
        won.append(vote(given) == answer)
    return sum(passed) / len(passed), sum(won) / len(won)
