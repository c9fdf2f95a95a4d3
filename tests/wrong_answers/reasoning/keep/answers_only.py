MESSAGE = "only the answer is verified"


def right(prompt, text):
    words = prompt.split()
    n = words.index("(1)")
    state = words[:n]
    for swap in words[n + 1 : -1 : 2]:
        a, b = swap.split("-")
        state = [{a: b, b: a}.get(cup, cup) for cup in state]
    return text.split()[-n - 2 :] == ["=", *state, "$"]


def keep(samples, held_out):
    best = {}
    for index, (prompt, text) in enumerate(samples):
        if prompt in held_out or not right(prompt, text):
            continue
        length = len(text.split())
        if prompt not in best or length < best[prompt][0]:
            best[prompt] = length, index
    return [index for _, index in best.values()]
