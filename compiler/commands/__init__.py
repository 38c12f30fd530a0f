"""The commands of the command line, one a file: ``add(commands)`` declares, ``execute`` runs."""
