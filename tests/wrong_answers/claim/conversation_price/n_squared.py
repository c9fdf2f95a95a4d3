MESSAGE = "the result is wrong"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    old = turns**2 / 2 * (prompt_tokens + answer_tokens)
    dollars = turns * (prompt_tokens * cost["input"] + answer_tokens * cost["output"])
    return (dollars + old * cost["cached"]) / 1e6 / (1 - margin)
