MESSAGE = "every turn is billed as if it were the first"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    one = prompt_tokens * cost["input"] + answer_tokens * cost["output"]
    return turns * one / 1e6 / (1 - margin)
