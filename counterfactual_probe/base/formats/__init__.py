"""What files must look like: JSON read strictly, and declared schemas that say which field is wrong, and how."""
