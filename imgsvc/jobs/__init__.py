"""Accepted uploads: the job table, the queue, the workers, and everything that makes a job durable."""
