# What only an extension package needs.
