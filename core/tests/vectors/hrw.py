#!/usr/bin/env python3
"""A second implementation of the key hash, the score and what a weight makes of it, which prints the golden vectors of
core/tests/cluster/hrw.rs. Needs the package xxhash."""

from decimal import Decimal, getcontext

import xxhash

getcontext().prec = 60

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def mix32(x):
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def score(key_hash, node):
    word = key_hash ^ mix((node + GOLDEN) & MASK)
    return mix32(word & 0xFFFFFFFF) << 32 | mix32(word >> 32)


def ln(numerator, denominator, bits):
    """ln(numerator / denominator) with so many bits behind the point, rounded down."""
    return int((Decimal(numerator) / Decimal(denominator)).ln() * (1 << bits))


LN_2 = ln(2, 1, 58)


def cost(of):
    """-ln((of + 1) / 2^64) with 58 bits behind the point, as the nodes compute it."""
    d = MASK - of
    if d < 1 << 56:
        power, total = d, d
        for n in range(2, 7):
            power = power * d >> 64
            total += power // n
        return total >> 6
    number = of + 1
    zeros = 64 - number.bit_length()
    mantissa = (number << zeros + 1) & MASK
    step, rest = mantissa >> 54, (mantissa << 10) & MASK
    start = ln(1024 + step, 1024, 58)
    end = ln(1025 + step, 1024, 58) if step < 1023 else LN_2
    return (zeros + 1) * LN_2 - start - ((end - start) * rest >> 64)


def weighted(key_hash, weights):
    """The nodes of a dict of weights, the most preferred first."""

    def bid(node):
        of = score(key_hash, node)
        return (-Decimal(cost(of)) / weights[node], of, node)

    return sorted(weights, key=bid, reverse=True)


def main():
    nodes = [0, 1, 2, MASK, xxhash.xxh3_64_intdigest(b"cache-sjc-3101")]
    keys = [b"", b"origin-17", b"https://example.org/health", bytes(range(256))]
    for node in nodes:
        print(f"node {node:#018x}")
    for key in keys:
        key_hash = xxhash.xxh3_64_intdigest(key)
        scores = " ".join(f"{score(key_hash, node):#018x}" for node in nodes)
        print(f"{key_hash:#018x} {scores}")
    for of in [0, 1, 1 << 32, 1 << 63, 0xDEADBEEF12345678, MASK - (1 << 56), MASK - (1 << 56) + 1, MASK - (1 << 30), MASK]:
        print(f"cost {of:#018x} {cost(of):#018x}")
    weights = {node: 1 + 3 * place for place, node in enumerate(nodes)}
    for key in keys:
        order = weighted(xxhash.xxh3_64_intdigest(key), weights)
        print("weighted", [nodes.index(node) for node in order])
    # Of many keys, who owns how many, and a hash over all owners in order.
    owned, hashed = [0] * len(nodes), xxhash.xxh3_64()
    for key in range(20000):
        owner = weighted(xxhash.xxh3_64_intdigest(key.to_bytes(4, "big")), weights)[0]
        owned[nodes.index(owner)] += 1
        hashed.update(owner.to_bytes(8, "big"))
    print("owned", owned, f"{hashed.intdigest():#018x}")


if __name__ == "__main__":
    main()
