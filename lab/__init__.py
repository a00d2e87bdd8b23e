"""A throw-away Screwdriver build cluster on loopback: real control plane, nodes simulated by kwok, Screwdriver's own router."""
