"""What :func:`graphprune.profile.profile` is made of."""
