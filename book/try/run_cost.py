# Hours times rent. Which of the four would you argue about?
gpu_hours = 2_788_000  # fact: v3.gpu_hours.total
rent = 2.0  # fact: v3.price_per_gpu_hour
failed_runs = 0.0  # as a share of the run that is counted
salaries = 0.0  # dollars

cost = gpu_hours * (1 + failed_runs) * rent + salaries
print(f"{cost:,.0f} dollars")

gpus = 2048  # fact: v3.gpus
print(f"{gpu_hours / gpus / 24:.0f} days on {gpus:,} GPUs")

for other in (1.0, 2.0, 4.0):
    print(f"at {other:.0f} an hour: {gpu_hours * other / cost:.2f} of that")
