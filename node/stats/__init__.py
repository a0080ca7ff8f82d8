"""What happened: counters per pool, their averages, and the text a monitoring system reads."""
