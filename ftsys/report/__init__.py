"""What people see of a run: progress, tables, and silence where the stack would talk of what nobody can act on."""
