# Eight experts, four GPUs, and copies for the busy ones. How many copies until all are equal?
load = [40, 20, 10, 10, 8, 6, 4, 2]  # tokens for each expert
gpus = 4
n_copies = 4  # beyond one of each; try 0

copies = [1] * len(load)
for _ in range(n_copies):  # one more of whose copies have most to do
    busiest = max(range(len(load)), key=lambda e: load[e] / copies[e])
    copies[busiest] += 1

pieces = []
for e in range(len(load)):
    pieces += copies[e] * [(load[e] / copies[e], e)]
slots = -(-len(pieces) // gpus)
work, held = [0.0] * gpus, [[] for _ in range(gpus)]
for size, e in sorted(pieces, reverse=True):  # the heaviest first
    room = [g for g in range(gpus) if len(held[g]) < slots]
    free = [g for g in room if e not in held[g]]
    g = min(free or room, key=lambda g: work[g])
    work[g] += size
    held[g].append(e)

for g in range(gpus):
    print(f"GPU {g}: {work[g]:5.1f} tokens, experts {sorted(held[g])}")
print(f"the busiest has {max(work) * gpus / sum(work):.2f} times the mean")
