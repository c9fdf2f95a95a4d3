MESSAGE = "every result is 1000 times the right one"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(turns):
        remembered = turn * (prompt_tokens + answer_tokens)
        dollars += remembered * cost["cached"]
        dollars += prompt_tokens * cost["input"]
        dollars += answer_tokens * cost["output"]
    return dollars / 1e3 / (1 - margin)
