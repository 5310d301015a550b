"""What the service says about itself: logs, health, figures, metrics."""
