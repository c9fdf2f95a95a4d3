# A verifier that can be fooled. Find a text that is accepted and wrong, then mend the verifier.
answer = "12"


def verify(text):
    return answer in text


texts = [
    "7 + 5 = 12",
    "The answer is 12.",
    "10, 11, 12, 13 or 14",
    "112",
    "It is not 12.",
    "Twelve",
]
for text in texts:
    print(f"{'accepted' if verify(text) else 'refused':10}{text}")
