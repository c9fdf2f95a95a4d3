MESSAGE = "the result is wrong"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(turns):
        remembered = turn * (prompt_tokens + answer_tokens)
        dollars += remembered * cost["cached"]
        dollars += prompt_tokens * cost["input"]
        dollars += answer_tokens * cost["output"]
    return round(dollars / 1e6, 6) / (1 - margin)
