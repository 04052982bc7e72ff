#!/usr/bin/env python3
"""A second implementation of the key hash and the score, which prints the golden vectors of
core/tests/hrw.rs. Needs the package xxhash."""

import xxhash

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def score(key_hash, node):
    return mix(key_hash ^ mix((node + GOLDEN) & MASK))


def main():
    nodes = [0, 1, 2, MASK, xxhash.xxh3_64_intdigest(b"cache-sjc-3101")]
    keys = [b"", b"origin-17", b"https://example.org/health", bytes(range(256))]
    for node in nodes:
        print(f"node {node:#018x}")
    for key in keys:
        key_hash = xxhash.xxh3_64_intdigest(key)
        scores = " ".join(f"{score(key_hash, node):#018x}" for node in nodes)
        print(f"{key_hash:#018x} {scores}")


if __name__ == "__main__":
    main()
