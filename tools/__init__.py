"""What the repository needs beside the package: pages, pictures, releases. Not installed."""
