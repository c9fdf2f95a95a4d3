MESSAGE = "only where `cost` is in another order"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    c, i, o = sorted(cost.values())
    old = turns * (turns - 1) / 2 * (prompt_tokens + answer_tokens)
    dollars = turns * (prompt_tokens * i + answer_tokens * o) + old * c
    return dollars / 1e6 / (1 - margin)
