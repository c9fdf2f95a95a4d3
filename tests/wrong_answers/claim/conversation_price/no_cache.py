MESSAGE = "what was said before is billed as new input"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    dollars = 0
    for turn in range(turns):
        read = turn * (prompt_tokens + answer_tokens) + prompt_tokens
        dollars += read * cost["input"] + answer_tokens * cost["output"]
    return dollars / 1e6 / (1 - margin)
