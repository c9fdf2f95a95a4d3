# What DeepSeek's machines cost a day, and what one must earn that only writes answers.
nodes = 226.75  # fact: inference.nodes.average
gpus_per_node = 8  # fact: inference.gpus_per_node
rent = 2.0  # fact: v3.price_per_gpu_hour
speed = 14800  # fact: inference.speed.output
busy = 1.0  # the share of the day that a machine writes

per_hour = gpus_per_node * rent
per_million = per_hour / (speed * busy * 3600) * 1e6
print(f"a day of all machines: {nodes * per_hour * 24:,.0f} dollars")
print(f"a million tokens written: {per_million:.3f} dollars")

price = 2.19  # fact: price.r1.output
print(f"the price was {price / per_million:.1f} times that")
share = per_million / price
print(f"it pays its rent if it writes {100 * share:.0f} percent of the day")
