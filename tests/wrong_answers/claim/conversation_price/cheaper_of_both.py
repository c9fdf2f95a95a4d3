MESSAGE = "only where `cost` is in another order"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(turns):
        remembered = turn * (prompt_tokens + answer_tokens)
        dollars += remembered * min(cost["cached"], cost["input"])
        dollars += prompt_tokens * cost["input"]
        dollars += answer_tokens * cost["output"]
    return dollars / 1e6 / (1 - margin)
