MESSAGE = "one of its steps is wrong, or is none of the problem's"


def follow(prompt, text):
    words = prompt.split()
    n = words.index("(1)")
    state, steps = words[:n], words[n:-1]
    rest = text.split()
    for swap in steps[1::2]:
        if rest[1:2] != [swap]:
            return False
        rest = rest[2:]
        a, b = swap.split("-")
        state = [{a: b, b: a}.get(cup, cup) for cup in state]
        said, rest = rest[:n], rest[n:]
        while rest[:1] == ["!"]:
            said, rest = rest[1 : n + 1], rest[n + 1 :]
        if said != state:
            return False
    return rest == ["=", *state, "$"]


def keep(samples, held_out):
    best = {}
    for index, (prompt, text) in enumerate(samples):
        if prompt in held_out or not follow(prompt, text):
            continue
        length = len(text.split())
        if prompt not in best or length < best[prompt][0]:
            best[prompt] = length, index
    return [index for _, index in best.values()]
