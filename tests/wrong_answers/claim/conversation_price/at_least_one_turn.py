MESSAGE = "only where there are no turns"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(max(1, turns)):
        remembered = turn * (prompt_tokens + answer_tokens)
        dollars += remembered * cost["cached"]
        dollars += prompt_tokens * cost["input"]
        dollars += answer_tokens * cost["output"]
    return dollars / 1e6 / (1 - margin)
