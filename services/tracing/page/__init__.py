"""The page: HTML, styles and modules of JavaScript, served as they are."""
