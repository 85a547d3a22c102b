"""What up, down, reload and save mean: plan and host meet here, and nowhere else."""
