"""A throw-away Screwdriver build cluster on loopback: real control plane, kwok fleet, Screwdriver's own router."""
