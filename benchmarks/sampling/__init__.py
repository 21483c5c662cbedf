"""Monte Carlo dropout, tool by tool: what is sampled, what is left behind, what it costs."""
