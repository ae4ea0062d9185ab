"""What a MODEL argument means, and how texts become inputs and outputs become answers."""
