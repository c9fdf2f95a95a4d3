MESSAGE = "there is no profit in the price"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(turns):
        dollars += turn * (prompt_tokens + answer_tokens) * cost["cached"]
        dollars += prompt_tokens * cost["input"] + answer_tokens * cost["output"]
    return dollars / 1e6
