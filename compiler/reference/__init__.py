"""What every chip operation means, written with the stock torch operations that NUMERICS.md allows."""
