"""What a target is to the compiler: its protocol, its specification as data, its options."""
