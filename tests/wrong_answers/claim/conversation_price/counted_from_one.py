MESSAGE = "the turn itself is billed from the cache, too"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(1, turns + 1):
        dollars += turn * (prompt_tokens + answer_tokens) * cost["cached"]
        dollars += prompt_tokens * cost["input"] + answer_tokens * cost["output"]
    return dollars / 1e6 / (1 - margin)
