MESSAGE = "it raises ValueError: not enough values to unpack (expected 2, got 1)"


def keep(samples, held_out):

    def is_sound(prompt, text):
        words, rest = prompt.split(), text.split()
        n_balls = 2
        state, steps = words[:n_balls], words[n_balls:-1]
        for label, swap in zip(steps[::2], steps[1::2], strict=True):
            a, b = swap.split("-")
            state = [{a: b, b: a}.get(cup, cup) for cup in state]
            if rest[:2] != [label, swap]:
                return False
            rest = rest[2:]
            said, rest = rest[:n_balls], rest[n_balls:]
            while rest[:1] == ["!"]:
                if not set(said) <= set("123456"):
                    return False
                said, rest = rest[1 : n_balls + 1], rest[n_balls + 1 :]
            if said != state:
                return False
        return rest == ["=", *state, "$"]

    best = {}
    for index, (prompt, text) in enumerate(samples):
        if prompt in held_out or not is_sound(prompt, text):
            continue
        length = len(text.split())
        if prompt not in best or length < best[prompt][0]:
            best[prompt] = length, index
    return [index for _, index in best.values()]
