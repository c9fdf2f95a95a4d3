MESSAGE = "the costs are per million tokens"


def conversation_price(turns, prompt_tokens, answer_tokens, cost, margin):
    history = (prompt_tokens + answer_tokens) * turns * (turns - 1) / 2
    new = turns * (prompt_tokens * cost["input"] + answer_tokens * cost["output"])
    return (history * cost["cached"] + new) / (1 - margin)
