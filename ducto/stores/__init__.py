"""Where the credits are kept: one interface, interchangeable stores."""
